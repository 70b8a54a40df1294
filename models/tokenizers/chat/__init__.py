"""Renders chat templates: messages in the form that templates take, and a process of its own."""
