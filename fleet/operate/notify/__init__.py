"""Who is told of what happens: news are chosen from the audit, kept until they are sent, and sent."""
