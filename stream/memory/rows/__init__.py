"""What an in-process store keeps per row: in memory, or in files whose pages the system may drop from memory."""
