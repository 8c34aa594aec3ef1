"""Charts as SVG, and the markup they are made of: every picture of the package is drawn here."""
