"""Study. What calibration errors, missing sensors and false images do to a fused detector."""
