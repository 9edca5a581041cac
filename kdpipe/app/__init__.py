"""The app: what the pages are made of. A folder a page, beside the shell and what pages share.

Nothing in here knows torch: a hosted demo installs ``requirements.txt`` alone.
"""
