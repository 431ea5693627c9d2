export default { serverExternalPackages: ["@clerk/backend"] };
