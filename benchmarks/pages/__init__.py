"""The results pages: tables made from the records, between the markers of written pages."""
