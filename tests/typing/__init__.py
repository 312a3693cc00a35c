"""What users write, for the type checker."""
