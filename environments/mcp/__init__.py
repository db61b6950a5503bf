"""MCP servers as environments: `Mcp` plays the tasks of a task file."""

from tutelage.environments.mcp.env import Mcp, mcp_environment

__all__ = ["Mcp", "mcp_environment"]
