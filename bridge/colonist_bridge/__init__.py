"""The bridge between an MQTT broker and the server; holds no device keys."""
