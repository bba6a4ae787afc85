// Processes that a test starts (the service, the Pulumi program, the steps of a deploy) write down what they ran;
// `report` adds that to what jest saw in its own process.
if (process.env.CHILD_COVERAGE) process.env.NODE_V8_COVERAGE = process.env.CHILD_COVERAGE;
