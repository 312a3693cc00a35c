"""The example that is PipeCD's control plane."""
