"""Control problems of gymnax that change from task to task."""
