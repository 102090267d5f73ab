"""The miniature world: scenes, documents, questions, backbones, presets."""
