"""The edge in front of the cells: Kamailio's and rtpengine's configuration, and these programs' lives."""
