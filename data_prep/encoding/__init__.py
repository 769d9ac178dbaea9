"""From text to token ids: a reference encoder, a faster backend, and the check that both agree."""
