"""The Hugging Face Hub: cards, repositories, and uploads of datasets and models through its client."""
