"""Agents: the acting graph, the teacher's roles and the embedded expert."""
