"""Programs that use logstore and projections. Each is read from top to bottom; the tests run them all."""
