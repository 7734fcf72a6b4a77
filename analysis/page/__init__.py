"""The report: one HTML page with its front explorer, and the folder it is written to."""
