// Added to the official builder's configuration. What it builds is committed, so it must be the same on each machine and
// readable in a review.
module.exports = {
  optimization: { minimize: false, moduleIds: "named", chunkIds: "named" },
};
