"""A log at work on a real S3 service while that has trouble: docs/testing.md, "Trouble on a real S3"."""
