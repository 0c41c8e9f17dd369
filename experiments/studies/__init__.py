"""From a configuration to learners: what the studies of several problems share."""
