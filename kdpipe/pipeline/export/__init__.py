"""From finished stages to the tables of a study."""
