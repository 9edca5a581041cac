"""What several pages share: tables, charts, and what networks are called."""
