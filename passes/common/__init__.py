"""What several passes share: rewriting, analyses, integer forms, observers, and the statistics of calibration."""
