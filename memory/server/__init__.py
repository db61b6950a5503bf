"""Memory for other programs: one service, spoken to over HTTP and over the Model Context Protocol."""
