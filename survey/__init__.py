"""The third source: what relatives of GRPO do otherwise, none of which GRPO needs."""
