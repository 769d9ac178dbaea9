"""From text to token ids: a reference encoder, a faster one, and the check that both agree."""
