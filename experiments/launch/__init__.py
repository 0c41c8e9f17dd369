"""From a command line or a call to a study that runs."""
