"""Conversations, images, label masks, collation, the feature cache."""
