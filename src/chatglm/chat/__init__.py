"""TEXT <-> IDS: messages, tokenizers, prompt formats and the streaming decoder. Knows no tensor and no model."""
