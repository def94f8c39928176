"""The pure core: functions of arrays that trace into one XLA program. Nothing here touches the host."""
