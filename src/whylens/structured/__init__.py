"""Structured explanations: what of an image is enough, in how many ways, and what each of them loses with a part."""
