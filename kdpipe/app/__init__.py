"""The app: what the pages are made of. A folder for each page, the shell, and what pages share.

Nothing in here knows torch: a hosted demo installs ``requirements.txt`` alone.
"""

from importlib import import_module

# Streamlit imports these where it first needs them, and others look into sys.modules for them: of two first visitors
# one would meet a half-imported pandas. Whoever imports the app waits here until they are whole.
for _name in ("pandas", "pyarrow"):
    import_module(_name)
