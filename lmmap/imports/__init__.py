"""Score sets from elsewhere: published files, tables, evaluation logs; nothing in them is run."""
