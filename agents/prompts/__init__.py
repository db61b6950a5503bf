"""The prompts of the teacher's roles, one Markdown file each; the first line names the role."""

from importlib.resources import files


def prompt(role: str) -> str:
    """The system message of a role."""
    return files(__package__).joinpath(f"{role}.md").read_text(encoding="utf-8")
