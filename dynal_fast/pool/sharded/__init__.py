"""Pool statistics that several ranks keep together, each of a range of the samples."""
