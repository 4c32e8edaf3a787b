"""What watches passes rather than being one: promises held on generated inputs, and what is left behind when one breaks."""
