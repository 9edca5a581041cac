"""What the pages are drawn with: page set-up, words for networks, colours and charts.

Nothing in here knows torch: a hosted demo installs ``requirements.txt`` alone.
"""
