"""vtc's runs inside other people's programs; nothing here is loaded unless they ask."""
