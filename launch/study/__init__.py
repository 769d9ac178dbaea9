"""The study, which trains recipes under equal conditions and compares them."""
