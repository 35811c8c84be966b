"""Storyboards, prompt schedules and shot lists to shots, and shots to rows. Pure."""
