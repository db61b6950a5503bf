"""Jobs: durable, resumable pieces of background work, when they start by themselves, and where they run."""
