"""SIP and RTP by PJSIP: the endpoint, its threads, the cell and its legs. The only room that imports pjsua2."""
