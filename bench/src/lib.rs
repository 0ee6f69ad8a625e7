//! Load side by side with the ancestors
