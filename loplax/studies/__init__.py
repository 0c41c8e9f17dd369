"""Many runs: over seeds, methods and settings, resumable, with results and figures."""
