"""The map widget without a browser: what it is told of models, what it refuses, and the page it makes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lmmap.errors import InputError
from lmmap.geometry import nearest_neighbors
from lmmap.plotting.attributes import Groups, Scale, read_attribute
from lmmap.widgets.map_table import map_table, near_ones
from lmmap.widgets.map_widget import MapWidget, map_widget, with_picture
from lmmap.widgets.page import write_page


def some_models(n_models=50):
    rng = np.random.default_rng(0)
    families = np.minimum(rng.geometric(0.08, n_models), 40)
    table = pd.DataFrame(
        {
            "model": [f"maker-{f}/model-{f}-{k}-instruct" for k, f in enumerate(families)],
            "family": [f"family-{f}" if k % 9 else None for k, f in enumerate(families)],
            "n_parameters": np.exp(rng.uniform(17, 25, n_models)).astype(int),
            "height": np.where(np.arange(n_models) % 7, rng.normal(-1500, 100, n_models), np.nan),
            "released": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 2000, n_models), "D"),
            "error_var": rng.gamma(1, 0.1, n_models),
            "is_chat": rng.random(n_models) < 0.5,
        },
        index=[f"model-{k}-instruct-{rng.integers(16**8):08x}" for k in range(n_models)],
    )
    return table, rng.normal(size=(n_models, 2))


def drawn_at(widget):
    """Positions as a browser reads them."""
    index = np.frombuffer(widget.frame["index"], dtype="<i4")
    xy = np.frombuffer(widget.frame["xy"], dtype="<f4").reshape(-1, 2)
    return index, xy


def test_groups_have_the_colours_marks_and_order_of_the_static_figures():
    table, _ = some_models(500)
    told = map_table(table, max_groups=32)
    painted = read_attribute(table, "family", max_groups=32)
    assert isinstance(painted, Groups)
    column, style = told["columns"]["family"], told["style"]
    assert column["groups"] == painted.names
    assert painted.n_small_groups > 0
    hues, marks = style["hues"], style["marks"]
    for i, rows in enumerate(painted.members):
        assert hues[i % len(hues)] == painted.color(i)
        assert marks[i // len(hues)] == painted.mark(i)
        assert {column["values"][k] for k in rows} == {painted.names[i]}
    assert [value is None for value in column["values"]] == table["family"].isna().tolist()


@pytest.mark.parametrize("name", ["n_parameters", "height", "released", "error_var"])
def test_numbers_and_dates_have_the_colours_of_the_static_figures(name):
    table, _ = some_models(200)
    told = map_table(table)
    column, viridis = told["columns"][name], told["style"]["viridis"]
    painted = read_attribute(table, name)
    assert isinstance(painted, Scale)
    seen = [
        told["style"]["grey"] if shade is None else f"#{viridis[6 * shade : 6 * shade + 6]}"
        for shade in column["shade"]
    ]
    assert seen == [to_hex(color) for color in painted.colors()]
    assert [label for _, label in column["ticks"]] == painted.tick_labels
    assert all(0 <= place <= 1 for place, _ in column["ticks"])
    assert column["kind"] == ("date" if name == "released" else "number")


def test_values_are_those_of_the_table_and_json_holds_what_is_told():
    table, _ = some_models()
    told = json.loads(json.dumps(map_table(table), allow_nan=False))
    assert told["ids"] == list(table.index)
    assert told["names"] == list(table["model"])
    columns = told["columns"]
    assert list(columns) == [name for name in table.columns if name != "model"]
    assert columns["n_parameters"]["values"] == table["n_parameters"].tolist()
    heights = [np.nan if v is None else v for v in columns["height"]["values"]]
    np.testing.assert_allclose(heights, table["height"], rtol=1e-6)
    assert columns["released"]["values"] == table["released"].dt.strftime("%Y-%m-%d").tolist()
    assert columns["is_chat"]["values"] == table["is_chat"].astype(str).tolist()


def test_an_attribute_that_no_model_has_is_told_and_coloured_by_nobody():
    table, _ = some_models()
    column = map_table(table.assign(note=None, gap=np.nan))["columns"]
    assert column["note"]["groups"] == column["gap"]["groups"] == []
    assert set(column["note"]["values"]) == {None}


def test_the_neighbours_told_are_the_nearest_in_order():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(30, 4))
    kl = ((points[:, None] - points[None]) ** 2).sum(axis=-1) / 2
    told = near_ones(kl, 30)
    rows = nearest_neighbors(kl, 10)
    assert told["rows"] == rows.tolist()
    np.testing.assert_allclose(told["kl"], np.take_along_axis(kl, rows, axis=1), rtol=5e-3)
    assert len(near_ones(kl[:3, :3], 3)["rows"][0]) == 2


def test_a_frame_holds_the_rows_shown_and_their_positions_and_its_number_goes_up():
    table, xy = some_models()
    widget = map_widget(table, xy, color="family", caption="first")
    index, positions = drawn_at(widget)
    assert index.tolist() == list(range(50))
    np.testing.assert_array_equal(positions, xy.astype(np.float32))
    rows = [table.index[k] for k in (7, 3, 11)]
    widget.message = "no text is left"
    widget.show(rows, xy[:3], caption="second")
    index, positions = drawn_at(widget)
    assert index.tolist() == [7, 3, 11]
    np.testing.assert_array_equal(positions, xy[:3].astype(np.float32))
    assert (widget.frame["seq"], widget.frame["caption"], widget.message) == (2, "second", "")


def test_what_cannot_be_shown_is_refused_and_the_last_map_kept():
    table, xy = some_models()
    widget = map_widget(table, xy)
    before = dict(widget.frame)
    for rows, at, reason in (
        ([table.index[0][:-1]], xy[:1], rf"no model id .* \(closest: '{table.index[0]}'"),
        ([table.index[0]] * 2, xy[:2], "shows a model once, got 1 ids twice"),
        (table.index[:3], xy[:2], r"coordinates have shape \(2, 2\), expected \(3, 2\)"),
        (table.index[:2], np.array([[0, 0], [np.nan, 1]]), r"position of model 1 is \[nan, 1.0\]"),
        (table.index[:1], np.array([[1e300, 0]]), "position of model 0"),
    ):
        with pytest.raises(InputError, match=reason):
            widget.show(list(rows), at)
    assert widget.frame == before


def test_unknown_ids_and_attributes_are_refused_with_the_nearest_word():
    table, xy = some_models()
    widget = map_widget(table, xy, color="family")
    with pytest.raises(InputError, match=r"no attribute 'famly' on this map \(closest: 'family'\)"):
        map_widget(table, xy, color="famly")
    with pytest.raises(InputError, match="no attribute 'famly'"):
        widget.color = "famly"
    with pytest.raises(InputError, match="shape must be an attribute of groups; 'height' holds numbers"):
        widget.shape = "height"
    with pytest.raises(InputError, match="no model id 'gone'"):
        widget.selected = [table.index[0], "gone"]
    with pytest.raises(InputError, match="no model id 'gone'"):
        widget.chosen = "gone"
    assert (widget.color, widget.shape, widget.selected, widget.chosen) == ("family", "", [], "")


def test_tables_that_name_a_model_twice_or_none_are_refused():
    table, xy = some_models()
    with pytest.raises(InputError, match=r"model id 'model-0-instruct-.*' is given more than once"):
        map_widget(table.iloc[[0, 0]], xy[:2])
    with pytest.raises(InputError, match="there is no model to show"):
        map_widget(table.iloc[:0], xy[:0])
    with pytest.raises(InputError, match=r"max_groups must lie in 1\.\.32"):
        map_widget(table, xy, max_groups=33)


def test_an_untrusted_copy_says_what_the_widget_was():
    table, xy = some_models(3)
    data, _ = map_widget(table, xy)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "trust this notebook" in data["text/plain"]


def test_a_picture_is_shown_beside_a_map_in_a_box_and_not_beside_a_box_without_one(capsys):
    import ipywidgets
    from matplotlib import pyplot as plt

    table, xy = some_models(3)
    widget = map_widget(table, xy)
    figure = plt.figure()
    with_picture(ipywidgets.HBox([ipywidgets.VBox([widget])]), figure)
    assert re.fullmatch(r"lmmap-picture-[0-9a-f]{32}", widget.picture)
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(InputError, match="a HBox without a map in it"):
        with_picture(ipywidgets.HBox([ipywidgets.Label("no map")]), figure)


def test_a_widget_carries_its_script():
    assert "export default" in str(MapWidget._esm)


def what_is_in(page):
    data = re.search(r'id="data">([^<]*)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(data)))


def test_a_page_of_1018_models_with_six_attributes_and_neighbours_is_below_200_kilobytes(tmp_path):
    table, xy = some_models(1018)
    kl = ((xy[:, None] - xy[None]) ** 2).sum(axis=-1) / 2
    path = write_page(tmp_path / "map.html", table, xy, color="family", caption="c", neighbors=kl)
    assert path.stat().st_size < 200_000
    told = what_is_in(path.read_text(encoding="utf-8"))
    assert told["table"] == {**map_table(table), "neighbors": near_ones(kl, 1018)}
    np.testing.assert_allclose(np.reshape(told["frame"]["xy"], (-1, 2)), xy, rtol=1e-6)
    assert told["color"] == "family"


def test_a_page_names_no_address_and_allows_its_own_script_alone(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>\u2028"
    table, xy = some_models(5)
    table = table.assign(model=hostile, family=hostile)
    path = write_page(tmp_path / "map.html", table, xy, title=hostile, caption=hostile)
    page = path.read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("</script>") == 2
    script = re.search(r'<script type="module">(.*)</script>', page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert set(re.findall(r"https?://[^\"'` )]*", page)) == {"http://www.w3.org/2000/svg"}
    assert what_is_in(page)["table"]["names"] == [hostile] * 5


def test_the_same_map_gives_the_same_page(tmp_path):
    table, xy = some_models()
    one, two = (write_page(tmp_path / f"{k}.html", table, xy, color="family") for k in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_pages_that_cannot_be_written_are_refused(tmp_path):
    table, xy = some_models(5)
    with pytest.raises(InputError, match=r"a page is written as \.html, not as 'map\.pdf'"):
        write_page(tmp_path / "map.pdf", table, xy)
    with pytest.raises(InputError, match="no attribute 'famly' on this map"):
        write_page(tmp_path / "map.html", table, xy, color="famly")
    with pytest.raises(InputError, match=r"neighbors has shape \(5, 3\), expected the KL of every pair"):
        write_page(tmp_path / "map.html", table, xy, neighbors=np.zeros((5, 3)))
    with pytest.raises(InputError, match="neighbors holds a KL that is not finite"):
        write_page(tmp_path / "map.html", table, xy, neighbors=np.full((5, 5), np.nan))
    assert not list(tmp_path.iterdir())
