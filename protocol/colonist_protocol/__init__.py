"""The wire: model, messages, codec, envelope, identity, errors, topics. No I/O."""
