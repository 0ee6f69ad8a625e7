//! The web page of health, throughput, lag and search
