"""The status manager: writes what every process reports, and notices who has stopped reporting."""
